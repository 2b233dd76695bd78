"""From a finished run to a server: the exported model and the files beside it."""
