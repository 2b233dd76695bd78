"""Keras callbacks for any compiled model."""
