"""The grid: accuracy for alpha .1 to 1 and tau 1 to inf, on test and on clean training images.

The paper's numbers at tau = inf are not comparable and left out: their gradient was summed over
the batch.

    python tools/reproduce.py grid --seeds 3
"""
title = 'Grid over alpha and tau, CIFAR-100'
pairs = dict(wrn28_4='wrn28-4_wrn16-2', wrn40_2='wrn40-2_wrn16-2')
alphas = ['0.1', '0.2', '0.3', '0.4', '0.5', '0.6', '0.7', '0.8', '0.9', '1.0']
taus = ['1', '3', '5', '20', 'inf']
runs = {t: dict(config=f"mmkd_logit::wrn/{t.replace('_', '-')}.py") for t in pairs}
runs.update({
    f'{t}_a{alpha}_t{tau}': dict(
        row=f"{pairs[t].upper().replace('_', ' -> ')}, tau {tau}", column=f'alpha {alpha}',
        config=f'mmkd_logit::kd/{pairs[t]}_kl-t20.py', teacher=t,
        overrides=[f'model.alpha={alpha}'] * (alpha != '1.0')
        + [f'model.loss_kd.tau={tau}'] * (tau != '20'))
    for t in pairs for tau in taus for alpha in alphas})
test = [
    [72.79, 72.56, 72.80, 72.70, 72.84, 72.68, 72.78, 72.60, 72.87, 72.90],
    [73.76, 73.90, 73.88, 74.30, 74.18, 74.64, 74.78, 74.32, 74.35, 74.24],
    [73.84, 74.00, 74.36, 74.54, 74.74, 74.54, 75.17, 74.84, 75.24, 74.88],
    [73.51, 73.94, 74.34, 74.54, 74.64, 74.86, 75.05, 74.86, 75.26, 75.76]]
train = [
    [99.53, 99.54, 99.55, 99.56, 99.54, 99.56, 99.53, 99.50, 99.46, 99.34],
    [99.37, 99.09, 98.69, 98.33, 97.85, 97.43, 96.84, 96.26, 95.76, 95.05],
    [99.32, 99.07, 98.70, 98.19, 97.66, 96.96, 96.18, 95.11, 93.91, 92.63],
    [99.33, 99.13, 98.96, 98.63, 98.25, 97.87, 97.29, 96.33, 95.12, 92.76]]
numbers = [{
    f'wrn28_4_a{alpha}_t{tau}': value for tau, line in zip(taus, table)
    for alpha, value in zip(alphas, line)} for table in (test, train)]
note = 'The authors measured train accuracy on augmented images; ours is of clean ones.'
metrics = [
    dict(title='test top-1 (%)', key='test.accuracy/top1', paper=numbers[0], mark='S'),
    dict(title='train top-1 (%)', key='train.accuracy/top1', paper=numbers[1], mark='S')]
