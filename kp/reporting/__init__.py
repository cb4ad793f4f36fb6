"""What people look at: tables, plots, pictures, the HTML page, the numbers in README and report.

It imports ``evaluation`` and what lies below.
"""
