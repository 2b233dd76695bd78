"""From files to rows with labels: stores, imports, data sets, splits."""
