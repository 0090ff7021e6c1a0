"""What a run leaves to read: journal, figures and pages."""
