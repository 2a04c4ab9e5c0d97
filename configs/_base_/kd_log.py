"""Log lines average what a distiller only looks at over 10 iterations, as they do its losses."""
log_processor = dict(
    custom_cfg=[
        dict(data_src=key, method_name='mean', window_size=10)
        for key in ('ce', 'kd', 'teacher_agreement')
    ])
