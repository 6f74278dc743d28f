"""What people look at: colours, overlays, heat maps, frames side by side, text; numpy, OpenCV and Pillow only."""
