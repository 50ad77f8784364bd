"""What happens over many questions and many configurations, and the command line."""
