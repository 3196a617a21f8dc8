"""Tests of `perception.sound`."""

import math

import pytest
import torch

from perception import PerceptionError, SoundConfig, SoundSpec
from perception.sound import SoundEncoder, Spectrogram

RATE = 11_025
SPEC = SoundSpec(num_samples=1260)


def tone(pitch, left=1.0, right=1.0, num_samples=1260):
    """Return a tone of a pitch in hertz with an amplitude for each ear, (L, 2)."""
    wave = torch.sin(2 * math.pi * pitch * torch.arange(num_samples) / RATE)
    return torch.stack([left * wave, right * wave], dim=-1)


def test_the_power_is_that_of_pytorchs_fourier_transform():
    sounds = torch.rand(3, 1260, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1
    loudness = Spectrogram(16)(sounds)
    assert loudness.shape == (3, 2, 16, 8)
    power = ((10 ** (loudness / 2) - 1) / 1000) ** 2
    window = torch.hann_window(256)
    for ear in range(2):
        spectrum = torch.stft(
            sounds[..., ear], 256, 128, window=window, center=False, return_complex=True
        )
        expected = (spectrum.abs() / window.sum()).square()[:, 1:].sum(1)  # Without the mean.
        torch.testing.assert_close(power[:, ear].sum(1), expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("pitch", [200.0, 1000.0, 4000.0])
def test_a_tone_is_in_the_band_of_its_pitch(pitch):
    spectrogram = Spectrogram(16)
    (loudness,) = spectrogram(tone(pitch)[None])
    loudest = loudness[0, :, 3].argmax()
    of_fourier = round(pitch / RATE * 256) - 1
    assert spectrogram.bands[loudest, of_fourier] == 1
    assert 5 < loudness.max() < 6


def test_every_pitch_is_in_one_band_and_no_band_is_empty():
    bands = Spectrogram(16).bands
    assert bands.sum(0).eq(1).all()
    assert bands.sum(1).gt(0).all()


def test_silence_is_zero_and_the_louder_ear_is_louder():
    spectrogram = Spectrogram(16)
    assert spectrogram(torch.zeros(1, 1260, 2)).abs().max() < 2e-3
    (loudness,) = spectrogram(tone(500.0, left=0.1, right=0.4)[None])
    assert (loudness[1].amax(0) > loudness[0].amax(0) + 1).all()


@pytest.mark.parametrize("sound_input", ["spectrogram", "waveform"])
def test_the_direction_of_a_sound_is_learned(sound_input):
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    encoder = SoundEncoder(SPEC, SoundConfig(sound_input=sound_input, sound_features=16))
    model = torch.nn.Sequential(encoder, torch.nn.Linear(16, 1))
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)

    def draw(num):
        is_left = torch.rand(num, generator=generator) < 0.5
        volume = torch.rand(num, generator=generator) * 0.8 + 0.2
        pitch = torch.rand(num, generator=generator) * 1000 + 300
        sides = torch.where(is_left[:, None], torch.tensor([1.0, 0.6]), torch.tensor([0.6, 1.0]))
        volumes = (volume[:, None] * sides).tolist()
        sounds = [tone(float(p), *v) for p, v in zip(pitch, volumes, strict=True)]
        return torch.stack(sounds), is_left.float()

    for _ in range(80):
        sounds, is_left = draw(32)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(model(sounds)[:, 0], is_left)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    sounds, is_left = draw(200)
    assert ((model(sounds)[:, 0] > 0) == is_left.bool()).float().mean() > 0.9


def test_sounds_that_are_too_short_are_refused():
    with pytest.raises(PerceptionError, match="sounds of 200 samples are too short"):
        SoundEncoder(SoundSpec(num_samples=200), SoundConfig())


def test_bad_values_are_refused():
    with pytest.raises(ValueError, match="sound_bands must be at most 64, got 65"):
        SoundConfig(sound_bands=65)
    with pytest.raises(ValueError, match="sound_features must be at least 1"):
        SoundConfig(sound_features=0)
    with pytest.raises(ValueError, match=r"a sound of shape \(0, 2\) is empty"):
        SoundSpec(num_samples=0)
