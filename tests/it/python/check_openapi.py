"""Whether OpenAPI documents are valid: `check_openapi.py FILE…` ends with 1 when one is not."""

import json
import sys

from openapi_spec_validator import OpenAPIV31SpecValidator

failed = False
for name in sys.argv[1:]:
    with open(name, encoding="utf-8") as file:
        document = json.load(file)
    for error in OpenAPIV31SpecValidator(document).iter_errors():
        failed = True
        print(f"{name}: {'/'.join(map(str, error.absolute_path))}: {error.message[:500]}", file=sys.stderr)
sys.exit(failed)
