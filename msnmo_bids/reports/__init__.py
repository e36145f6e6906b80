"""What a person looks at: figures of a scan, the report of a participant, what all pages share."""
