"""What a person reads: pages, tables, plots and marked copies."""
