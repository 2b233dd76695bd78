"""Seeds × folds: their plan, the processes that train them, their table, two of them compared."""
