// SPDX-License-Identifier: MulanPSL-2.0
// An HTTP server of node: node server.js ADDRESS PORT. It answers a PUT by what it got, and GET /small by a few bytes.
"use strict";
const [address, port] = process.argv.slice(2);
require("http").createServer((request, response) => {
	if (request.method === "PUT")
		request.pipe(response);
	else
		response.end("small\n");
}).listen({ host: address, port: Number(port), backlog: 128 });
