"""How sure a model is: samples, moments, measures, intervals, abstention."""
