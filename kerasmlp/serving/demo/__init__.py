"""The page that `demo` serves."""
