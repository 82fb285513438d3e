module moorage.invalid/conformance/gojson

go 1.26
