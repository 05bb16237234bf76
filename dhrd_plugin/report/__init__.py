"""`dhrd-report`: tables, pictures and pages from the harness's own result files."""
