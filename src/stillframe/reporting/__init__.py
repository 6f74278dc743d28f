"""Figures, the report page and the model card, made from what the stages wrote."""
