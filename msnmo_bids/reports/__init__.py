"""What a person looks at: figures of a scan, a report a participant, the group's tables and page."""
