"""Trainers of the small embedded models and of LoRAs for published ones."""
