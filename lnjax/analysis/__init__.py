"""Reading runs: tables, figures and reports."""
