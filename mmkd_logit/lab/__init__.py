"""The paper's experiments, measured: runs, tables, report and benchmark."""
