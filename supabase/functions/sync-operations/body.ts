// A request's body, unpacked within limits. It is never parsed: reading and printing JSON would damage numbers.

import { Decompress } from "fzstd";

import { LIMITS, Refusal } from "./problem.ts";

/** Bytes of a packed body, as it arrives. */
const MAX_PACKED_BYTES = 1024 * 1024;
/** A zstd frame may ask for a window of so many bytes: as much as a whole inflated body. */
const MAX_WINDOW_BYTES = 8 * 1024 * 1024;

const NOT_WHAT_IT_SAYS = { detail: "the body is not what its content-encoding says" };

export async function readBody(request: Request): Promise<Uint8Array<ArrayBuffer>> {
    const type = (request.headers.get("content-type") ?? "application/json").split(";")[0].trim().toLowerCase();
    if (type !== "application/json") throw new Refusal("unsupported_media", { field: "content-type" });
    const encoding = (request.headers.get("content-encoding") ?? "identity").trim().toLowerCase();
    switch (encoding) {
        case "":
        case "identity":
            return await collect(request.body, LIMITS.max_bytes);
        case "gzip":
        case "x-gzip":
            return await gunzip(await collect(request.body, MAX_PACKED_BYTES));
        case "zstd":
            return unzstd(await collect(request.body, MAX_PACKED_BYTES));
        default:
            throw new Refusal("unsupported_media", { field: "content-encoding" });
    }
}

/** Chunk by chunk: what is over the limit costs no more than the limit. */
async function collect(stream: ReadableStream<Uint8Array> | null, limit: number): Promise<Uint8Array<ArrayBuffer>> {
    const chunks: Uint8Array[] = [];
    let length = 0;
    for await (const chunk of stream ?? []) {
        length += chunk.length;
        if (length > limit) throw new Refusal("body_too_large");
        chunks.push(chunk);
    }
    return joined(chunks, length);
}

function joined(chunks: Uint8Array[], length: number): Uint8Array<ArrayBuffer> {
    const whole = new Uint8Array(length);
    let at = 0;
    for (const chunk of chunks) {
        whole.set(chunk, at);
        at += chunk.length;
    }
    return whole;
}

async function gunzip(packed: Uint8Array<ArrayBuffer>): Promise<Uint8Array<ArrayBuffer>> {
    try {
        const inflated = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
        return await collect(inflated, LIMITS.max_bytes);
    } catch (error) {
        throw error instanceof Refusal ? error : new Refusal("invalid_request", NOT_WHAT_IT_SAYS);
    }
}

function unzstd(packed: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
    if (windowBytes(packed) > MAX_WINDOW_BYTES) throw new Refusal("body_too_large");
    const chunks: Uint8Array[] = [];
    let length = 0;
    let ended = false;
    try {
        const inflater = new Decompress((chunk, last) => {
            length += chunk.length;
            if (length > LIMITS.max_bytes) throw new Refusal("body_too_large");
            chunks.push(chunk.slice());
            ended ||= last === true;
        });
        inflater.push(packed, true);
    } catch (error) {
        throw error instanceof Refusal ? error : new Refusal("invalid_request", NOT_WHAT_IT_SAYS);
    }
    if (!ended) throw new Refusal("invalid_request", NOT_WHAT_IT_SAYS);
    return joined(chunks, length);
}

/** What a zstd frame asks to be kept in memory (RFC 8878, 3.1.1.1): its window, or in a single segment the whole content. */
export function windowBytes(frame: Uint8Array): number {
    const view = new DataView(frame.buffer, frame.byteOffset, frame.byteLength);
    if (frame.length < 6 || view.getUint32(0, true) !== 0xfd2fb528) {
        throw new Refusal("invalid_request", NOT_WHAT_IT_SAYS);
    }
    const descriptor = frame[4];
    const single = (descriptor & 0x20) !== 0;
    if (!single) {
        const base = 2 ** (10 + (frame[5] >> 3));
        return base + (base / 8) * (frame[5] & 7);
    }
    const at = 5 + [0, 1, 2, 4][descriptor & 3];
    const sizeBytes = [1, 2, 4, 8][descriptor >> 6];
    if (frame.length < at + sizeBytes) throw new Refusal("invalid_request", NOT_WHAT_IT_SAYS);
    if (sizeBytes === 1) return view.getUint8(at);
    if (sizeBytes === 2) return view.getUint16(at, true) + 256;
    return sizeBytes === 4 ? view.getUint32(at, true) : Number(view.getBigUint64(at, true));
}
