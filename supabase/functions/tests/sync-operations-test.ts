// The Edge Function by itself: a stand-in for the Data API says what it got, and answers what a test wants it to.

import { deepStrictEqual as equal, ok } from "node:assert/strict";
import { zstdCompressSync } from "node:zlib";

import { windowBytes } from "../sync-operations/body.ts";
import { handle } from "../sync-operations/endpoint.ts";
import { meaning, Refusal } from "../sync-operations/problem.ts";

const TABLE = new URL("../../../rust/syncline-protocol/fixtures/postgrest-errors.json", import.meta.url);
const MIB = 1024 * 1024;

interface Got {
    path: string;
    headers: Headers;
    body: Uint8Array;
}

/** Runs `test` with a function in front of a Data API that answers with `reply`. */
async function withApi(
    reply: () => Response,
    test: (ask: (request: RequestInit & { path?: string }) => Promise<Response>, got: Got[]) => Promise<void>,
) {
    const got: Got[] = [];
    const server = Deno.serve({ port: 0, hostname: "127.0.0.1", onListen: () => {} }, async (request) => {
        const body = new Uint8Array(await request.arrayBuffer());
        got.push({ path: new URL(request.url).pathname, headers: request.headers, body });
        return reply();
    });
    const project = { url: `http://127.0.0.1:${server.addr.port}/`, publishableKey: "sb_publishable_of_this_test" };
    try {
        await test(({ path = "/sync-operations/v1/push", ...init }) => {
            const headers = new Headers({
                authorization: "Bearer the.users.token",
                "content-type": "application/json",
            });
            for (const [name, value] of new Headers(init.headers)) headers.set(name, value);
            if (headers.get("authorization") === "none") headers.delete("authorization");
            return handle(new Request(`http://function${path}`, { method: "POST", ...init, headers }), project);
        }, got);
    } finally {
        await server.shutdown();
    }
}

const verdicts = () => new Response('{"applied": 1, "n": 1.0}', { headers: { "syncline-protocol": "1" } });

async function gzip(data: Uint8Array<ArrayBuffer>): Promise<Uint8Array<ArrayBuffer>> {
    const packed = new Blob([data]).stream().pipeThrough(new CompressionStream("gzip"));
    return new Uint8Array(await new Response(packed).arrayBuffer());
}

async function isProblem(response: Response, code: string, status: number) {
    const body = await response.json();
    equal([body.code, body.status, response.status], [code, status, status]);
    equal(response.headers.get("content-type"), "application/problem+json");
    equal(response.headers.get("syncline-protocol"), "1");
    ok(body.title.length > 0);
    return body;
}

Deno.test("the body goes to the function byte for byte, with the caller's token and the project's key", async () => {
    const body = '{"n":9007199254740993, "x":1e400,\n "y":1.0,"a":1,"a":2}';
    await withApi(verdicts, async (ask, got) => {
        for (const [route, name] of [["push", "syncline_push"], ["pull", "syncline_pull"]]) {
            const response = await ask({ path: `/functions/v1/sync-operations/v1/${route}`, body });
            equal([response.status, await response.text()], [200, '{"applied": 1, "n": 1.0}']);
            equal(response.headers.get("syncline-protocol"), "1");
            const seen = got.pop()!;
            equal(seen.path, `/rest/v1/rpc/${name}`);
            equal(new TextDecoder().decode(seen.body), body);
            equal(seen.headers.get("authorization"), "Bearer the.users.token");
            equal(seen.headers.get("apikey"), "sb_publishable_of_this_test");
            equal(seen.headers.get("content-profile"), "public");
            equal(seen.headers.get("content-encoding"), null);
        }
    });
});

Deno.test("packed bodies are unpacked, and what only claims to be packed is refused", async () => {
    const body = new TextEncoder().encode('{"protocol":1,"x":1e400}');
    const pack: Record<string, Uint8Array<ArrayBuffer>> = {
        gzip: await gzip(body),
        zstd: new Uint8Array(zstdCompressSync(body)),
    };
    await withApi(verdicts, async (ask, got) => {
        for (const [encoding, packed] of Object.entries(pack)) {
            const headers = { "content-encoding": encoding };
            equal((await ask({ headers, body: packed })).status, 200, encoding);
            equal(got.pop()!.body, body);
            for (const broken of [body, packed.slice(0, packed.length / 2)]) {
                await isProblem(await ask({ headers, body: broken }), "invalid_request", 400);
            }
        }
        await isProblem(await ask({ headers: { "content-encoding": "br" }, body }), "unsupported_media", 415);
        equal(got.length, 0);
    });
});

Deno.test("a body over the limit is refused, however it is packed, and reaches nobody", async () => {
    const limits = { max_operations: 500, max_bytes: 8 * MIB };
    await withApi(verdicts, async (ask, got) => {
        const send = (body: Uint8Array<ArrayBuffer>, encoding?: string) =>
            ask({ body, headers: encoding ? { "content-encoding": encoding } : {} });
        equal((await send(new Uint8Array(8 * MIB).fill(32))).status, 200);
        equal(got.pop()!.body.length, 8 * MIB);
        const bomb = new Uint8Array(8 * MIB + 1).fill(32);
        equal((await isProblem(await send(bomb), "body_too_large", 413)).limits, limits);
        await isProblem(await send(await gzip(new Uint8Array(64 * MIB)), "gzip"), "body_too_large", 413);
        await isProblem(await send(new Uint8Array(zstdCompressSync(bomb)), "zstd"), "body_too_large", 413);
        await isProblem(await send(await gzip(bomb), "gzip"), "body_too_large", 413);
        const noise = crypto.getRandomValues(new Uint8Array(65_536));
        const large = new Uint8Array(MIB + 65_536);
        for (let at = 0; at < large.length; at += noise.length) large.set(noise, at);
        await isProblem(await send(large, "gzip"), "body_too_large", 413);
        equal(got.length, 0);
    });
});

Deno.test("a zstd frame that asks for much memory is refused unread", () => {
    const frame = (...bytes: number[]) => new Uint8Array([0x28, 0xb5, 0x2f, 0xfd, ...bytes, ...new Array(16).fill(0)]);
    equal(windowBytes(frame(0x00, 13 << 3)), 8 * MIB);
    equal(windowBytes(frame(0x00, (13 << 3) | 1)), 9 * MIB);
    equal(windowBytes(frame(0x20, 7)), 7);
    equal(windowBytes(frame(0x60, 1, 1)), 513);
    equal(windowBytes(frame(0xa0, 0, 0, 0, 0x80)), 2 ** 31);
    equal(windowBytes(frame(0xe0, 0, 0, 0, 0, 1)), 2 ** 32);
    for (const none of [new Uint8Array(), new Uint8Array(16)]) {
        try {
            windowBytes(none);
            ok(false, "it was taken");
        } catch (error) {
            ok(error instanceof Refusal);
        }
    }
});

Deno.test("a large answer is packed for whoever asks for it", async () => {
    const large = `{"text":"${"many words, ".repeat(1000)}"}`;
    const reply = () =>
        new Response(large, { headers: { "syncline-protocol": "1", "content-type": "application/json" } });
    await withApi(reply, async (ask) => {
        for (
            const [accepted, packed] of [["gzip", true], ["br, gzip;q=0.5", true], ["gzip;q=0", false], ["br", false]]
        ) {
            const response = await ask({ body: "{}", headers: { "accept-encoding": accepted as string } });
            equal(response.headers.get("content-encoding"), packed ? "gzip" : null, accepted as string);
            const unpacked = packed ? response.body!.pipeThrough(new DecompressionStream("gzip")) : response.body;
            equal(await new Response(unpacked).text(), large);
        }
    });
});

Deno.test("paths, methods, types and a missing token are refused in the protocol's words", async () => {
    await withApi(verdicts, async (ask, got) => {
        await isProblem(await ask({ path: "/sync-operations", body: "{}" }), "unknown_path", 404);
        await isProblem(await ask({ path: "/sync-operations/v1/push/x", body: "{}" }), "unknown_path", 404);
        await isProblem(await ask({ method: "GET" }), "method_not_allowed", 405);
        await isProblem(await ask({ body: "{}", headers: { "content-type": "text/plain" } }), "unsupported_media", 415);
        for (const authorization of ["none", "Basic abc", "Bearer "]) {
            const response = await ask({ body: "{}", headers: { authorization } });
            equal(response.headers.get("www-authenticate"), "Bearer");
            await isProblem(response, "unauthorized", 401);
        }
        equal(got.length, 0);
    });
});

Deno.test("every error object of PostgREST is a problem with the right code", async () => {
    const { rows } = JSON.parse(await Deno.readTextFile(TABLE));
    ok(rows.length > 50);
    for (const row of rows) equal(meaning(row.code, row.status), row.problem, JSON.stringify(row));
    for (const row of rows.filter((row: { code: string }) => ["22P02", "PGRST202", "42501"].includes(row.code))) {
        const said = { code: row.code, details: null, hint: null, message: 'invalid input: "secret"' };
        const reply = () => new Response(JSON.stringify(said), { status: row.status, headers: { "retry-after": "7" } });
        await withApi(reply, async (ask) => {
            const response = await ask({ body: "{}" });
            equal(response.headers.get("retry-after"), "7");
            const { code, detail } = await response.json();
            equal(code, row.problem);
            if (row.code === "22P02") ok(!detail.includes("secret"), detail);
        });
    }
});

Deno.test("what the functions refuse is passed on as it is", async () => {
    const text = '{"code":"server_behind","status":409,"title":"t","epoch":"e","mark":2}';
    const headers = { "syncline-protocol": "1", "content-type": "application/problem+json", "retry-after": "3" };
    await withApi(() => new Response(text, { status: 409, headers }), async (ask) => {
        const response = await ask({ body: "{}" });
        equal([response.status, await response.text()], [409, text]);
        equal(response.headers.get("content-type"), "application/problem+json");
        equal(response.headers.get("retry-after"), "3");
    });
});

Deno.test("a gateway that answers, redirects or is not there makes the endpoint unavailable", async () => {
    for (const status of [200, 302, 401, 404, 502, 546]) {
        const reply = () => new Response("<html>", { status, headers: { location: "http://127.0.0.1:9/" } });
        await withApi(reply, async (ask) => void await isProblem(await ask({ body: "{}" }), "unavailable", 503));
    }
    const gone = { url: "http://127.0.0.1:9", publishableKey: "k" };
    const request = new Request("http://function/v1/pull", {
        method: "POST",
        headers: { authorization: "Bearer x", "content-type": "application/json" },
        body: "{}",
    });
    await isProblem(await handle(request, gone), "unavailable", 503);
});
