"""What people look at: plans and status in the terminal, tables, figures, cells, and a page.

Figures are pure: from the tables to a tidy frame, and from that frame alone to a picture.
"""
