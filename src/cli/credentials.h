/* SPDX-License-Identifier: Apache-2.0 */
/* Registries' credentials, where Docker's client keeps them: $DOCKER_CONFIG or ~/.docker, config.json, and its helpers. */
#ifndef WALNUT_CLI_CREDENTIALS_H
#define WALNUT_CLI_CREDENTIALS_H

#include "base/err.h"
#include "base/json.h"

#define HUB "https://index.docker.io/v1/"

/* credentials_server - the key of an image's registry: "host:port", or HUB. @out of 300 bytes. */
void credentials_server(const char *image, char *out, size_t size);
/* credentials_get - {username, password} or {identitytoken}, with "serveraddress". NULL: none are kept. New reference. */
json_t *credentials_get(const char *server) MUST_CHECK;
/* credentials_put - keep them; *plain tells whether they lie unencrypted in a file. */
int credentials_put(const char *server, const json_t *auth, bool *plain, struct err *err) MUST_CHECK;
/* credentials_erase - Return: 0, -ENOENT when there were none, or -errno. */
int credentials_erase(const char *server, struct err *err) MUST_CHECK;

/* base64 of @n bytes, with '-' and '_' for @url. Owned by the caller; NULL without memory. */
char *base64_encode(const void *bytes, size_t n, bool url) MUST_CHECK;

#endif
