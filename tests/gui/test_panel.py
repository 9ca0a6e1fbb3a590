"""The pages of settings in Ptychodus' window."""

import pytest
from ptychodus.api.settings import SettingsRegistry
from PyQt5.QtCore import QLocale, Qt
from PyQt5.QtTest import QTest
from PyQt5.QtWidgets import (
    QApplication,
    QCheckBox,
    QComboBox,
    QFormLayout,
    QGroupBox,
    QLabel,
    QLineEdit,
    QSpinBox,
    QToolButton,
    QWidget,
)

from ptychodus_torch_plugin.backends.registry import Availability
from ptychodus_torch_plugin.integration import library as library_module
from ptychodus_torch_plugin.integration import panel as panel_module
from ptychodus_torch_plugin.integration.panel import create_view_factory

# What Ptychodus and its libraries warn of is theirs to mend.
pytestmark = pytest.mark.filterwarnings('ignore')

NETWORK, FIT = 'pinn_pytorch', 'pinn_pytorch-fit'
PRETRAINED = 'pinn_pytorch-pretrained'
SWEEPS = ['Refine Probe', 'Probe Modes']
TRAINING = ['Objective', 'Epochs', 'Learning Rate', 'Held-Out Fraction']
ALWAYS = {'Inference': ['Refining Sweeps', 'Held-Out Fraction'], 'Execution': ['Accelerator']}
OF_FAMILY = {
    'unrolled': {
        'Model': ['Network Family', 'Sweeps Before', 'Sweeps After', *SWEEPS],
        'Training': TRAINING,
        **ALWAYS,
    },
    'cnn': {
        'Model': ['Network Family', 'Grid Size', 'Sweeps After', *SWEEPS],
        'Training': [*TRAINING[:2], 'Batch Size [groups]', *TRAINING[2:]],
        **ALWAYS,
    },
    'none': {'Model': ['Network Family', 'Sweeps Before', *SWEEPS], **ALWAYS},
}
ADVANCED_OF_ANY_NETWORK = ['CPU Threads', 'Precision', 'Deterministic', 'Loss Logger']
ADVANCED_UNROLLED = {
    'Advanced Model': ['Sweep Batch Size', 'Refine Intensity', 'Refine Positions'],
    'Advanced Training': ['Thinnings per Scan', 'Rate Schedule', 'Patience [epochs]', 'Seed'],
    'Advanced Inference': ['Seed'],
    'Advanced Execution': ADVANCED_OF_ANY_NETWORK,
}
each_family = pytest.mark.parametrize('family', OF_FAMILY)


def shown(page):
    """Return the visible fields of a page, by title and label."""
    found = {}
    for form in page.findChildren(QFormLayout):
        parent = form.parentWidget()
        is_box = isinstance(parent, QGroupBox)
        title = parent.title() if is_box else fold_button(parent.parentWidget()).text()
        for row in range(form.rowCount()):
            label, field = (
                form.itemAt(row, role).widget()
                for role in (QFormLayout.ItemRole.LabelRole, QFormLayout.ItemRole.FieldRole)
            )
            if field.isVisible():
                assert label.isVisible()
                found.setdefault(title, {})[label.text().removesuffix(':')] = field
    return found


def names(page):
    return {title: list(fields) for title, fields in shown(page).items()}


def fold_button(widget):
    return next(button for button in widget.findChildren(QToolButton) if button.isCheckable())


def unfold(page, is_open=True):
    for button in page.findChildren(QToolButton):
        if button.isCheckable() and button.isChecked() != is_open:
            button.click()


def words(page):
    """Return the first text of a page."""
    return page.findChild(QLabel).text()


def choose(combo, text):
    """Choose as a user does."""
    combo.setCurrentText(text)
    combo.textActivated.emit(text)


def write(line, text):
    """Write over what stands in a line."""
    line.selectAll()
    QTest.keyClicks(line, text)
    QTest.keyClick(line, Qt.Key.Key_Return)


@pytest.fixture
def page(window):
    """The page of the reconstructor with a model."""
    window.choose_algorithm(NETWORK)
    unfold(window.panel, is_open=False)
    return window.panel


@each_family
def test_the_page_has_what_means_something_for_the_family(window, page, photograph, family):
    choose(shown(page)['Model']['Network Family'], family)
    window.pump(0.1)
    assert names(page) == OF_FAMILY[family]
    boxes = {box.title() for box in page.findChildren(QGroupBox) if box.isVisible()}
    assert boxes == set(OF_FAMILY[family])
    photograph(window, f'panel-{family}')


def test_advanced_settings_are_folded(window, page, photograph):
    assert fold_button(page).isVisible()
    unfold(page)
    # A model that is loaded may be of another family: nothing of inference is hidden.
    of_any_model = ['Patch Weighting', 'Nearest Neighbors', 'Seed']
    basic = OF_FAMILY['unrolled']
    assert names(page) == basic | ADVANCED_UNROLLED | {'Advanced Inference': of_any_model}
    window.choose_algorithm(FIT)
    assert names(window.panel) == basic
    unfold(window.panel)
    window.pump(0.1)
    assert names(window.panel) == basic | ADVANCED_UNROLLED
    photograph(window, 'panel-advanced')
    window.set(Model_Architecture='none')
    swept = {title: ADVANCED_UNROLLED[title] for title in ('Advanced Model', 'Advanced Inference')}
    threads = {'Advanced Execution': ['CPU Threads', 'Deterministic']}
    assert names(window.panel) == OF_FAMILY['none'] | swept | threads


@each_family
def test_the_pretrained_network_has_no_family_and_no_training(window, photograph, family):
    window.choose_algorithm(PRETRAINED)
    window.set(Model_Architecture=family)
    unfold(window.panel)
    window.pump(0.1)
    unrolled, advanced = OF_FAMILY['unrolled'], ADVANCED_UNROLLED
    assert names(window.panel) == {
        'Model': unrolled['Model'][1:],
        **ALWAYS,
        'Advanced Model': advanced['Advanced Model'],
        'Advanced Inference': advanced['Advanced Inference'],
        'Advanced Execution': ['CPU Threads', 'Precision', 'Deterministic'],
    }
    boxes = {box.title() for box in window.panel.findChildren(QGroupBox) if box.isVisible()}
    assert boxes == {'Model', *ALWAYS}
    photograph(window, 'panel-pretrained')


def test_weights_go_with_the_type_of_the_model(window, page):
    weights = ['Likelihood Weight', 'Amplitude Weight', 'Variation Weight']
    window.set(Model_Architecture='cnn')
    unfold(page)
    for model_type, expected in (('pinn', weights), ('supervised', weights[2:]), ('pinn', weights)):
        choose(shown(page)['Advanced Model']['Model Type'], model_type)
        labels = names(page)['Advanced Training']
        assert [label for label in labels if label.endswith('Weight')] == expected


def test_the_page_follows_a_settings_file_that_is_opened(window, page, tmp_path):
    file = tmp_path / 'settings.ini'
    file.write_text('[PINNModel]\nArchitecture = cnn\nGridSize = 2\nRefineProbe = False\n')
    window.set(Model_GridSize=1, Model_RefineProbe=True)
    window.model.settings_registry.open_settings(file)
    model = shown(page)['Model']
    assert list(model) == OF_FAMILY['cnn']['Model']
    assert model['Network Family'].currentText() == 'cnn'
    assert model['Grid Size'].value() == 2
    assert not model['Refine Probe'].isChecked()


def test_what_is_changed_on_a_page_is_in_the_registry_and_on_the_others(window, page):
    unfold(page)
    fields = shown(page)
    fields['Training']['Epochs'].setValue(17)
    write(fields['Training']['Learning Rate'].findChild(QLineEdit), '0.0025')
    choose(fields['Execution']['Accelerator'], 'cpu')
    fields['Model']['Refine Probe'].click()
    training, execution, model = (
        window.model.settings_registry[f'PINN{group}'].parameters()
        for group in ('Training', 'Execution', 'Model')
    )
    assert training['NumEpochs'].get_value() == 17
    assert training['LearningRate'].get_value() == 0.0025
    assert execution['Accelerator'].get_value() == 'cpu'
    refined = model['RefineProbe'].get_value()
    window.choose_algorithm('pinn_tensorflow-fit')
    others = shown(window.panel)
    assert others['Training']['Epochs'].value() == 17
    assert others['Training']['Learning Rate'].findChild(QLineEdit).text() == '0.0025'
    assert others['Model']['Refine Probe'].isChecked() == refined
    fields['Model']['Refine Probe'].setChecked(True)
    training['LearningRate'].set_value(0.001)


def test_automatic_is_a_word(window, page):
    window.set(Model_NumProbeModes=0, Inference_NumRefiningSweeps=-1)
    fields = shown(page)
    modes, sweeps = fields['Model']['Probe Modes'], fields['Inference']['Refining Sweeps']
    assert (modes.text(), sweeps.text()) == ('automatic', 'automatic')
    sweeps.stepUp()
    modes.stepUp()
    assert (modes.text(), sweeps.text()) == ('1', '0')
    sweeps.stepDown()


def test_every_field_and_its_label_say_what_they_are(window, page):
    window.set(Model_Architecture='cnn')
    unfold(page)
    for form in page.findChildren(QFormLayout):
        for row in range(form.rowCount()):
            tips = {
                form.itemAt(row, role).widget().toolTip()
                for role in (QFormLayout.ItemRole.LabelRole, QFormLayout.ItemRole.FieldRole)
            }
            assert len(tips) == 1
            assert '<p>Default: ' in tips.pop()
    smoothing = shown(page)['Advanced Model']['Smoothing [px]'].toolTip()
    assert smoothing == (
        '<p>Sigma in pixels of a 3 x 3 Gaussian filter of the exit wave; 0: none.</p>'
        '<p>Default: 0.0. Range: 0 to 10.</p>'
        '<p><small>model.gaussian_smoothing_sigma; '
        'in the settings file [PINNModel] GaussianSmoothingSigma</small></p>'
    )


@each_family
def test_nothing_is_cut_off(window, page, family):
    size = window.view.size()
    window.view.resize(1280, 720)  # what Ptychodus takes on a screen of 1920 x 1080
    try:
        window.set(Model_Architecture=family)
        for key in (NETWORK, FIT, PRETRAINED):
            window.choose_algorithm(key)
            unfold(window.panel)
            window.pump(0.2)
            area = window.panel.parentWidget().parentWidget().parentWidget()
            assert area.horizontalScrollBar().maximum() == 0
            widgets = [
                widget
                for kind in (QLabel, QCheckBox, QComboBox, QSpinBox, QToolButton)
                for widget in window.panel.findChildren(kind)
                if widget.isVisible() and not getattr(widget, 'wordWrap', bool)()
            ]
            assert len(widgets) > 20
            for widget in widgets:
                assert widget.width() >= widget.minimumSizeHint().width(), widget.toolTip()
    finally:
        window.view.resize(size)


def test_a_page_says_what_to_do(window, page):
    assert words(page).startswith('<b>Export Training Data…</b>')
    window.choose_algorithm(FIT)
    assert words(window.panel).startswith('<b>Reconstruct</b> trains a network')
    window.choose_algorithm(PRETRAINED)
    assert 'trained beforehand on simulated scans: nothing is left to train' in words(window.panel)
    window.choose_algorithm(FIT)
    window.set(Model_Architecture='none')
    assert 'nothing is trained' in words(window.panel)
    assert f'choose the algorithm <b>{FIT}</b>' in words(page)


def test_a_point_is_a_point_in_every_language(page):
    before = QLocale()
    QLocale.setDefault(QLocale(QLocale.Language.German))
    try:
        made = library_module.create_library(SettingsRegistry())
        german = create_view_factory(made, None).create_view_controller('pytorch')
        german.show()
        fraction = made.settings.parameters['training.held_out_fraction']
        (line,) = (
            line
            for line in german.findChildren(QLineEdit)
            if 'training.held_out_fraction' in line.parentWidget().toolTip()
        )
        write(line, '0,3')
        assert fraction.get_value() == 0.1
        write(line, '0.2')
        assert fraction.get_value() == 0.2
    finally:
        QLocale.setDefault(before)


def test_a_backend_that_is_missing_says_how_to_get_it(monkeypatch, home):
    command = "pip install 'ptychodus-torch-plugin[torch]'"
    missing = Availability(False, reason='torch <2.2> is too old', hint=command)
    broken = Availability(False, reason='x.y:Z failed to load')
    monkeypatch.setattr(
        library_module, 'available_backends', lambda: {'pytorch': missing, 'JAX': broken}
    )
    QApplication.instance() or QApplication(['test'])
    factory = create_view_factory(library_module.create_library(SettingsRegistry()), None)
    for name in ('pytorch', 'pytorch-fit', 'pytorch-pretrained'):
        label = factory.create_view_controller(name)
        assert f'<b>{name}</b> cannot be used: torch &lt;2.2&gt; is too old.' in label.text()
        assert '<code>pip install &#x27;ptychodus-torch-plugin[torch]&#x27;</code>' in label.text()
        assert label.textInteractionFlags() & Qt.TextInteractionFlag.TextSelectableByMouse
        assert label.wordWrap()
    other = factory.create_view_controller('jax').text()
    assert 'x.y:Z failed to load.' in other
    assert '<code>' not in other


@pytest.fixture
def late_page(home):
    """A page that nobody has looked at."""
    QApplication.instance() or QApplication(['test'])
    made = library_module.create_library(SettingsRegistry())
    return create_view_factory(made, None).create_view_controller('pytorch')


def test_a_page_is_made_once_it_is_seen(late_page):
    assert not late_page.findChildren(QWidget)
    late_page.show()
    fields = late_page.findChildren(QLineEdit)
    assert fields
    late_page.hide()
    late_page.show()
    assert late_page.findChildren(QLineEdit) == fields


def test_a_page_that_cannot_be_made_says_why(late_page, monkeypatch, caplog):
    def broken(_dialogs):
        raise LookupError('no <such> widget')

    monkeypatch.setattr(panel_module, 'ParameterViewBuilder', broken)
    late_page.show()
    (label,) = late_page.findChildren(QLabel)
    assert label.text().endswith('LookupError: no &lt;such&gt; widget')
    assert 'cannot be shown: LookupError: no <such> widget' in caplog.text
