// Plays what the fragment says, as JSON: { player, url }. What happens is told in `window.seen`.

const { player, url } = JSON.parse(decodeURIComponent(location.hash.slice(1)));
const video = document.querySelector('video');
const seen = { fatal: [], parts: 0, fragments: 0, details: {} };
window.seen = seen;

const fail = (text) => seen.fatal.push(text);
const play = () => video.play().catch((error) => fail(`play: ${error}`));
video.addEventListener('error', () => fail(`video: ${video.error?.message}`));

function playHls(lowLatencyMode) {
  const { Hls } = window;
  const hls = new Hls({ lowLatencyMode });
  hls.on(Hls.Events.ERROR, (_, data) => {
    if (data.fatal) fail(`${data.type} ${data.details} ${data.error ?? data.reason ?? ''}`);
    else seen.details[data.details] = (seen.details[data.details] ?? 0) + 1;
  });
  hls.on(Hls.Events.FRAG_LOADED, (_, data) => { if (data.part) seen.parts += 1; else seen.fragments += 1; });
  hls.on(Hls.Events.MANIFEST_PARSED, play);
  hls.loadSource(url);
  hls.attachMedia(video);
  // How old what is shown is, by the dates in the playlist.
  seen.ageMs = () => (hls.playingDate ? Date.now() - hls.playingDate.getTime() : null);
}

function playMpegts() {
  const { mpegts } = window;
  mpegts.LoggingControl.enableAll = false;
  const instance = mpegts.createPlayer({ type: 'flv', isLive: true, url }, { liveBufferLatencyChasing: true });
  instance.on(mpegts.Events.ERROR, (type, detail, info) => fail(`${type} ${detail} ${info?.msg ?? ''}`));
  instance.attachMediaElement(video);
  instance.load();
  instance.play().catch((error) => fail(`play: ${error}`));
}

function playMediaSource() {
  const source = new MediaSource();
  video.src = URL.createObjectURL(source);
  source.addEventListener('sourceopen', () => {
    let buffer = null;
    const waiting = [];
    const next = () => {
      if (!waiting.length || buffer?.updating) return;
      const item = waiting.shift();
      if (typeof item !== 'string') {
        buffer.appendBuffer(item);
        return;
      }
      if (buffer) {
        buffer.changeType(item);
        next();
        return;
      }
      buffer = source.addSourceBuffer(item);
      buffer.addEventListener('error', () => fail('source buffer'));
      buffer.addEventListener('updateend', () => {
        const { buffered } = video;
        if (buffered.length && video.currentTime < buffered.start(0)) video.currentTime = buffered.start(0);
        // Over a hole, as where the publisher was away.
        const after = [...Array(buffered.length).keys()].map((at) => buffered.start(at))
          .find((start) => start > video.currentTime);
        if (video.readyState < 3 && after !== undefined) video.currentTime = after;
        next();
      });
      play();
      next();
    };
    const socket = new WebSocket(url);
    socket.binaryType = 'arraybuffer';
    socket.addEventListener('message', ({ data }) => {
      seen.fragments += typeof data === 'string' ? 0 : 1;
      waiting.push(typeof data === 'string' ? JSON.parse(data).mime : data);
      next();
    });
    socket.addEventListener('close', ({ code, reason }) => fail(`closed ${code} ${reason}`));
  }, { once: true });
}

const ways = {
  hls: () => playHls(true),
  'hls-whole': () => playHls(false),
  mpegts: playMpegts,
  mse: playMediaSource,
  native: () => { video.src = url; play(); },
};
ways[player]();
