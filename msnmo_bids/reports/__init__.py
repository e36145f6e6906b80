"""What a person looks at: figures of a scan, a report a participant, tables and page of a group."""
