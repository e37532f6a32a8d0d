"""Studies: many trainings as few compiled programs."""
