"""Measures: numbers about arrays and models, which every stage may ask for; imports nothing of ours."""
