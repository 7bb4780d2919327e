// Live view of one camera in a <video>, by WHEP (docs/live.md). Plain script, no dependencies.
//
//   const view = watch(video, "front-door", {
//     state(word, why) {},     // "connecting", "live", "stalled", or "waiting" with the reason
//     picture(media, frame) {} // media time of the picture shown, BigInt, 90 kHz; frame as in
//   });                        //   requestVideoFrameCallback
//   view.stop();
//
// It goes on until it is stopped: what fails is tried again, at first at once, later every 10 s.
function watch(video, camera, on = {}) {
  const WRAP = 1n << 32n, STALLED_MS = 3000, PAUSES_MS = [500, 1000, 2000, 5000, 10000];
  const path = `/api/v1/devices/${encodeURIComponent(camera)}/whep`;
  let pc, session, origin, media, seen, failures = 0, lost = 0, timer, word, stopped = false;

  const say = (next, why = "") => {
    if (next !== word || why) on.state?.(word = next, why);
  };
  const close = () => {
    clearTimeout(timer);
    pc?.close();
    pc = undefined;
    // A viewer that says nothing is noticed after 15 s; this frees its place at once.
    if (session) fetch(session, { method: "DELETE", keepalive: true }).catch(() => {});
    session = undefined;
  };
  const again = why => {
    if (stopped) return;
    close();
    say("waiting", why);
    timer = setTimeout(start, PAUSES_MS[Math.min(failures++, PAUSES_MS.length - 1)]);
  };
  // RTP time is 32 bits of media time, which is near UTC at first and near the last one then.
  const mediaTime = rtp => {
    const near = media ?? BigInt(Math.round(Date.now() * 90));
    let time = origin + BigInt(rtp);
    while (time + WRAP / 2n < near) time += WRAP;
    return media = time;
  };
  const shown = (mine, now, frame) => {
    if (pc !== mine) return;
    seen = performance.now();
    failures = 0;
    say("live");
    if (frame.rtpTimestamp !== undefined) on.picture?.(mediaTime(frame.rtpTimestamp), frame);
    video.requestVideoFrameCallback((now, frame) => shown(mine, now, frame));
  };
  const look = mine => {
    if (pc !== mine) return;
    // A goodbye closes the transport at once; without one the connection is lost for a while first.
    const transport = mine.getReceivers()[0]?.transport?.state;
    lost = mine.connectionState === "disconnected" ? lost + 1 : 0;
    if ([mine.connectionState, transport].some(s => s === "failed" || s === "closed") || lost > 3) {
      return again("the connection ended");
    }
    // A page that is not seen is shown nothing.
    if (document.hidden) seen = performance.now();
    if (word === "live" && performance.now() - seen > STALLED_MS) say("stalled");
    timer = setTimeout(look, 1000, mine);
  };
  const start = async () => {
    const mine = pc = new RTCPeerConnection();
    [media, seen, lost] = [undefined, undefined, 0];
    try {
      say("connecting");
      mine.addTransceiver("video", { direction: "recvonly" });
      mine.ontrack = event => {
        // As late as pictures come, not later.
        event.receiver.jitterBufferTarget = 0;
        video.srcObject = new MediaStream([event.track]);
      };
      await mine.setLocalDescription();
      const answer = await fetch(path, {
        method: "POST", headers: { "Content-Type": "application/sdp" }, body: mine.localDescription.sdp,
      });
      const text = await answer.text();
      if (!answer.ok) {
        let why = text;
        try { why = JSON.parse(text).error.message; } catch { /* as it is */ }
        throw new Error(why || `status ${answer.status}`);
      }
      const location = answer.headers.get("Location");
      if (pc !== mine) return void fetch(location, { method: "DELETE" }).catch(() => {});
      [session, origin] = [location, BigInt(answer.headers.get("X-Media-Origin") ?? 0)];
      await mine.setRemoteDescription({ type: "answer", sdp: text });
      video.requestVideoFrameCallback((now, frame) => shown(mine, now, frame));
      look(mine);
    } catch (error) {
      if (pc === mine) again(error.message);
    }
  };

  [video.autoplay, video.muted, video.playsInline] = [true, true, true];
  start();
  return {
    stop() {
      stopped = true;
      close();
      video.srcObject = null;
    },
  };
}
