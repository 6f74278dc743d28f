"""Figures and HTML pages made from the outputs of the stages."""
