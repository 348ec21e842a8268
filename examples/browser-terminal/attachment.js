// One exec on one xterm.js terminal, over `GET /execs/{id}/attach`.
//
// The frames: the first byte says which channel. 0: what is typed. 1 and 2: output, with the offset of its first byte in
// front of it. 3: control, in JSON.

const STDIN = 0;
const CONTROL = 3;
/** Codes of a close after which there is nothing to come back for. */
const FINAL = [1000, 1002, 1003, 1007, 1008, 1009];
const LONGEST_PAUSE = 10_000;

export class Attachment {
  constructor({ server, exec, key, terminal, onStatus = () => {} }) {
    Object.assign(this, { server: server.replace(/\/$/, ""), exec, key, terminal, onStatus });
    this.offsets = [0, 0];
    this.failures = 0;
    this.isOver = false;
    // Programs ask a terminal what it is and where its cursor stands, and it answers as if somebody typed. The questions in
    // old output were asked long ago; their answers would be typed into the live program. So nothing is sent before `live`.
    this.isLive = false;
    this.listeners = [
      terminal.onData((text) => this.#type(new TextEncoder().encode(text))),
      terminal.onBinary((bytes) => this.#type(Uint8Array.from(bytes, (byte) => byte.charCodeAt(0)))),
      terminal.onResize(({ rows, cols }) => this.isLive && this.#control({ type: "resize", rows, cols })),
    ];
  }

  /** Connects, and again when the connection breaks, from where it stood. */
  async attach() {
    try {
      const protocols = ["stacyvm.v1"];
      if (this.key) protocols.push(`ticket.${await this.#ticket()}`);
      if (this.isOver) return;
      const [stdout, stderr] = this.offsets;
      const url = new URL(`${this.server}/api/v1/execs/${encodeURIComponent(this.exec)}/attach`);
      url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
      url.search = new URLSearchParams({ stdout_offset: stdout, stderr_offset: stderr });
      this.socket = new WebSocket(url, protocols);
    } catch (error) {
      this.#again(error.message);
      return;
    }
    this.isLive = false;
    this.socket.binaryType = "arraybuffer";
    this.socket.onmessage = ({ data }) => this.#take(new Uint8Array(data));
    this.socket.onclose = ({ code, reason, wasClean }) => {
      this.isLive = false;
      this.lastClose = { code, reason, wasClean };
      if (this.isOver || FINAL.includes(code)) this.detach();
      else this.#again(`closed with ${code}`);
    };
  }

  /** Leaves. The exec goes on. */
  detach() {
    this.isOver = true;
    this.isLive = false;
    this.listeners.forEach((listener) => listener.dispose());
    this.socket?.close(1000);
  }

  /** A browser can send no headers with a WebSocket: a ticket stands for the key, once. */
  async #ticket() {
    const answer = await fetch(`${this.server}/api/v1/tickets`, { method: "POST", headers: { "X-API-Key": this.key } });
    if (!answer.ok) throw new Error(`no ticket: ${answer.status}`);
    return (await answer.json()).ticket;
  }

  #again(why) {
    const pause = Math.min(250 * 2 ** this.failures++, LONGEST_PAUSE);
    this.onStatus(`${why}; trying again`);
    setTimeout(() => this.isOver || this.attach(), pause);
  }

  #take(frame) {
    const channel = frame[0];
    if (channel === CONTROL) {
      this.#obey(JSON.parse(new TextDecoder().decode(frame.subarray(1))));
      return;
    }
    const offset = Number(new DataView(frame.buffer, 1, 8).getBigUint64(0));
    const bytes = frame.subarray(9);
    this.offsets[channel - 1] = offset + bytes.length;
    this.terminal.write(bytes);
  }

  #obey(control) {
    switch (control.type) {
      case "attached":
        this.failures = 0;
        this.onStatus(`attached to ${control.exec.id}`);
        // Old output is drawn for the size that the terminal of the exec has.
        if (control.exec.tty) this.terminal.resize(control.exec.tty.cols, control.exec.tty.rows);
        break;
      case "resized":
        this.terminal.resize(control.cols, control.rows);
        break;
      case "live":
        // xterm.js takes what it is given later. Only when it has taken all of the scrollback are its answers to it over.
        this.terminal.write("", () => {
          this.isLive = !this.isOver;
          this.onStatus("live");
        });
        break;
      case "gone":
        this.offsets[control.stream === "stderr" ? 1 : 0] = control.to;
        break;
      case "error":
        this.onStatus(control.message);
        break;
      case "exit":
        this.isOver = true;
        this.onStatus(`ended: ${control.outcome} ${control.exit_code ?? ""}`);
        break;
    }
  }

  #type(bytes) {
    if (this.isLive) this.#send(STDIN, bytes);
  }

  #control(message) {
    this.#send(CONTROL, new TextEncoder().encode(JSON.stringify(message)));
  }

  #send(channel, bytes) {
    if (this.socket?.readyState !== WebSocket.OPEN) return;
    const frame = new Uint8Array(bytes.length + 1);
    frame[0] = channel;
    frame.set(bytes, 1);
    this.socket.send(frame);
  }
}
