"""What people look at: colours, overlays, heat maps, frames side by side; numpy and OpenCV only."""
