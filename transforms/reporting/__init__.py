"""What a report is made of: schemas, storage, the summary and the manifest. No transforms here."""
