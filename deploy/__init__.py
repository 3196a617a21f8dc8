"""What leaves the project: ONNX files, and policies on the Hugging Face hub."""
