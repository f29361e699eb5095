"""Members: one classifier each, with predictions on images it did not train on."""
