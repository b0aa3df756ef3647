"""Interventions: changes of the loop while it runs."""
