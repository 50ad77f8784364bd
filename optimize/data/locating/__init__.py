"""Where documents state the answers of questions without evidence."""
