"""The quality of a bundle's samples: measures against data, with their floors, as a report and as a page."""
