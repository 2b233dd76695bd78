"""Pictures and image sets, decoded and stored."""
