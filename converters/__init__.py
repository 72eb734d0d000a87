"""One module per arrow: torch -> ONNX, ONNX -> LiteRT, ONNX -> ONNX Runtime."""
