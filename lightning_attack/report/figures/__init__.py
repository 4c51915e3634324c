"""Figures for papers: strips of pictures, curves with intervals and a matrix of finished runs, by matplotlib."""
