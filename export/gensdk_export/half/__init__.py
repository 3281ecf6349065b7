"""Half precision by measurement: what is halved, and which parts stay in float32."""
