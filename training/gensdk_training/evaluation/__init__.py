"""What a bundle's samples are worth: measures against data, with their floors, as a report and as a page."""
