"""What a model sees beside the noise."""
