"""The group level: tables, figures and one page over all participants."""
