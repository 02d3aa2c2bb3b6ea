"""The colors of methods, in figures and on pages."""

# Distinct with any color vision (after Okabe and Ito 2008): on white, and on dark.
COLORS = ("#0072b2", "#c85500", "#00805e", "#b0508f", "#947000", "#4a4a4a", "#3d93cc", "#8b5a2b")
COLORS_ON_DARK = ("#4aa3e8", "#f0883e", "#2fc79a", "#e08cc4", "#e0bb3c", "#c3cad2", "#a8d8f8", "#c99c6e")
