#!/usr/bin/env bash
# Makes the certificates of the tests, valid for a century; the keys guard nothing.
set -euo pipefail
cd "$(dirname "$0")"
days=36500
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days $days -subj "/CN=SkyLB tests" \
  -addext "basicConstraints=critical,CA:TRUE" -addext "keyUsage=critical,keyCertSign,cRLSign" \
  -keyout ca.key -out ca.pem
for name in server-1 server-2 client; do
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj "/CN=$name" -keyout $name.key -out $name.csr
  openssl x509 -req -in $name.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days $days -out $name.pem -extfile <(
    printf '%s\n' 'basicConstraints=critical,CA:FALSE' 'keyUsage=critical,digitalSignature' \
      'subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1' 'authorityKeyIdentifier=keyid' 'subjectKeyIdentifier=hash'
  )
done
rm -f -- *.csr *.srl ca.key
