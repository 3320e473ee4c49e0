"""What is found, and in what order: filters, keywords, fusion, arrangement, moments."""
