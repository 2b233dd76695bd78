"""Files of other programs, each kind read into named arrays with the meaning it declares."""
