;;; test-who-sends.el --- Which function sends a mail, and what it calls  -*- lexical-binding: t; -*-

;; SPDX-License-Identifier: GPL-3.0-or-later

;;; Commentary:

;; Each case runs in an Emacs of its own, for it is about what has been loaded
;; and chosen there, and when.  In it, smtpmail itself can't reach any server.

;;; Code:

(require 'helper)

(defconst test-who-header
  "From: me@example.org\nTo: you@example.com\nSubject: Test\n"
  "The header of a mail.")

(defun test-who-message (&optional field)
  "Return a form that sends a mail with FIELD from Message."
  `(with-temp-buffer
     (message-mode)
     (insert ,test-who-header ,(or field "") mail-header-separator "\nHello\n")
     (message-send)))

(defconst test-who-mail
  `(with-temp-buffer
     (mail-mode)
     (insert ,test-who-header mail-header-separator "\nHello\n")
     (mail-send))
  "A form that sends a mail from mail mode.")

(defun test-who (&rest forms)
  "Evaluate FORMS in another Emacs, where only we can reach a server.
Return what it printed."
  (let ((rs-smtpmail-spool-directory (file-name-as-directory (test-file "spool"))))
    (test-emacs-output
     `(progn
        (require 'network-stream)
        (fset 'open-network-stream
              (lambda (&rest _) (error "Smtpmail itself opens a connection")))
        (setq message-confirm-send nil
              message-required-mail-headers '(From Date Message-ID)
              create-lockfiles nil
              mail-aliases nil)
        ,@forms))))

;;;; Who has never chosen

(ert-deftest test-who-sends-for-who-has-never-chosen ()
  (dolist (form (list test-who-mail (test-who-message)))
    (dolist (before '(nil ((require 'message))))
      (test-with-server nil
        (apply #'test-who `(,@before (require 'rs-smtpmail) (rs-smtpmail-mode 1) ,form))
        (should (equal '("you@example.com")
                       (plist-get (test-received 1) :recipients)))))))

(ert-deftest test-who-sends-runs-the-hook-of-message ()
  "As Message does when an explicit `send-mail-function' sends."
  (test-with-server nil
    (should (string-search
             "hook ran"
             (test-who '(require 'rs-smtpmail)
                       '(rs-smtpmail-mode 1)
                       '(add-hook 'message-send-mail-hook (lambda () (princ "hook ran")))
                       (test-who-message))))))

(ert-deftest test-who-sends-is-as-before-after-the-mode ()
  (should
   (equal "(rs-smtpmail-send-it sendmail-query-once sendmail-send-it \
rs-smtpmail-send-it nil)"
          (test-who
           '(require 'rs-smtpmail)
           '(setq inhibit-message t)
           '(princ
             (list (progn (rs-smtpmail-mode 1) (rs-smtpmail-mode 1)
                          send-mail-function)
                   (progn (rs-smtpmail-mode -1)
                          send-mail-function)
                   ;; Chosen while it is on.
                   (progn (rs-smtpmail-mode 1)
                          (setq send-mail-function #'sendmail-send-it)
                          (rs-smtpmail-mode -1)
                          send-mail-function)
                   ;; Chosen before.
                   (progn (setq send-mail-function #'rs-smtpmail-send-it)
                          (rs-smtpmail-mode 1)
                          (rs-smtpmail-mode -1)
                          send-mail-function)
                   (get 'send-mail-function 'saved-value)))))))

(ert-deftest test-who-sends-respects-a-choice-and-says-so-once ()
  (pcase-dolist (`(,option ,function)
                 '((send-mail-function sendmail-send-it)
                   (send-mail-function mailclient-send-it)
                   (message-send-mail-function message-send-mail-with-sendmail)))
    (let ((output (test-who `(setq ,option #',function)
                            '(require 'rs-smtpmail)
                            '(rs-smtpmail-mode 1)
                            '(rs-smtpmail-mode -1)
                            '(rs-smtpmail-mode 1)
                            `(princ ,option))))
      (should (string-suffix-p (symbol-name function) output))
      (should (= 2 (length (split-string output (format "as .%s. says" option))))))))

(ert-deftest test-who-sends-says-nothing-needless ()
  (dolist (function '(sendmail-query-once smtpmail-send-it feedmail-send-it
                      rs-smtpmail-send-it))
    (should-not (string-search
                 " says"
                 (test-who `(setq send-mail-function #',function)
                           '(require 'rs-smtpmail)
                           '(rs-smtpmail-mode 1))))))

(ert-deftest test-who-sends-without-any-server ()
  (dolist (form (list test-who-mail (test-who-message) '(rs-smtpmail-send-it)))
    (should
     (equal "t t 0"
            (test-who
             '(require 'rs-smtpmail)
             '(rs-smtpmail-mode 1)
             '(setq smtpmail-smtp-server nil inhibit-message t)
             `(condition-case err
                  (with-temp-buffer
                    ,@(if (eq (car form) 'with-temp-buffer)
                          (cdr form)
                        `((insert ,test-who-header mail-header-separator "\nHello\n")
                          ,form)))
                (user-error
                 (princ (and (string-search "M-x rs-smtpmail-add-account" (cadr err))
                             t))
                 (princ " ")
                 (princ (not (string-search "\n" (cadr err))))
                 (princ " ")
                 (princ (length (rs-smtp-queue-list))))))))))

;;;; The server in the header

(ert-deftest test-who-sends-by-the-server-in-the-header ()
  "Without the mode, too, whichever option names our function."
  (dolist (options '((message-send-mail-function #'rs-smtpmail-send-it)
                     (send-mail-function #'rs-smtpmail-send-it)
                     (send-mail-function #'rs-smtpmail-send-it
                      message-send-mail-function #'rs-smtpmail-send-it)
                     (send-mail-function #'rs-smtpmail-send-it
                      message-send-mail-function #'message-use-send-mail-function)))
    (dolist (has-port '(t nil))
      (test-with-server nil
        (test-who '(require 'rs-smtpmail)
                  `(setq ,@options
                         smtpmail-smtp-server "nowhere.invalid"
                         smtpmail-smtp-service ,(if has-port 1 smtpmail-smtp-service))
                  (test-who-message
                   (format "X-Message-SMTP-Method: smtp localhost%s\n"
                           (if has-port (format " %d" smtpmail-smtp-service) ""))))
        (should-not (string-search "SMTP-Method"
                                   (plist-get (test-received 1) :bytes)))))))

(ert-deftest test-who-sends-the-header-is-others-where-others-send ()
  "A mail that is not ours goes by smtpmail."
  (should (string-search
           "Smtpmail itself"
           (test-who '(require 'rs-smtpmail)
                     '(setq message-send-mail-function #'smtpmail-send-it)
                     `(condition-case err
                          ,(test-who-message "X-Message-SMTP-Method: smtp localhost 1\n")
                        (error (princ (cadr err))))))))

;;;; A function of the user's instead of smtpmail's

(defconst test-who-redefinition
  '(progn
     (defvar my-original (symbol-function 'smtpmail-via-smtp))
     (defun smtpmail-via-smtp (recipients buffer &optional _ask)
       (let ((smtpmail-smtp-server
              (and (with-current-buffer buffer
                     (goto-char (point-min))
                     (re-search-forward "^From: me@" nil t))
                   "localhost")))
         (prog1 (funcall my-original recipients buffer)
           (princ "mine ran")))))
  "A form that redefines what smtpmail sends by.")

(defun test-who-by-user (before after send &optional way)
  "Send by the user's function, in another Emacs; return what that printed.
It is defined after the form BEFORE and before the form AFTER.  SEND sends.
WAY is to be in force before that."
  (test-who '(setq smtpmail-smtp-server "nowhere.invalid")
            before way test-who-redefinition after send))

(defconst test-who-on '(progn (require 'rs-smtpmail) (rs-smtpmail-mode 1))
  "A form that turns the mode on.")

(defconst test-who-named '(progn (require 'rs-smtpmail)
                                 (setq send-mail-function #'rs-smtpmail-send-it))
  "A form that names our function.")

(ert-deftest test-who-sends-by-the-users-function-with-the-mode ()
  (pcase-dolist (`(,before ,after) `((,test-who-on nil) (nil ,test-who-on)))
    (test-with-server nil
      (should (string-search "mine ran"
                             (test-who-by-user before after test-who-mail)))
      (should (equal '("you@example.com")
                     (plist-get (test-received 1) :recipients)))
      (should (= 1 (test-received-count))))))

(ert-deftest test-who-sends-by-the-users-function-without-the-mode ()
  (pcase-dolist (`(,before ,after) `((,test-who-named nil) (nil ,test-who-named)))
    (test-with-server nil
      (should (string-search "mine ran"
                             (test-who-by-user before after test-who-mail)))
      (should (= 1 (test-received-count)))
      (test-received 1))))

(ert-deftest test-who-sends-by-the-users-function-with-its-arguments ()
  "It may call the old function more than once, by another name, with others."
  (dolist (before (list nil test-who-on))
    (test-with-server nil
      (test-who before
                '(fset 'my-original (symbol-function 'smtpmail-via-smtp))
                '(defun smtpmail-via-smtp (recipients buffer &rest arguments)
                   (apply #'my-original (cons "archive@example.org" recipients)
                          buffer arguments)
                   (my-original '("second@example.org") buffer))
                test-who-on
                test-who-mail)
      (should (equal '("archive@example.org" "you@example.com")
                     (plist-get (test-received 1) :recipients)))
      (should (equal '("second@example.org")
                     (plist-get (test-received 2) :recipients))))))

(ert-deftest test-who-sends-by-the-users-function-compiled ()
  (test-with-server nil
    (should (string-search
             "mine ran"
             (test-who-by-user nil
                               '(progn (byte-compile 'smtpmail-via-smtp)
                                       (require 'rs-smtpmail)
                                       (rs-smtpmail-mode 1))
                               test-who-mail)))
    (should (= 1 (test-received-count)))))

(ert-deftest test-who-sends-by-the-users-function-and-an-account ()
  "The function leaves the server to the account of the mail."
  (test-with-server nil
    (test-who '(fset 'my-original (symbol-function 'smtpmail-via-smtp))
              '(defun smtpmail-via-smtp (recipients buffer)
                 (my-original recipients buffer))
              test-who-on
              `(setq rs-smtpmail-accounts '(("me@example.org"
                                             :server "localhost"
                                             :port ,smtpmail-smtp-service))
                     smtpmail-smtp-server nil
                     smtpmail-smtp-service 1)
              test-who-mail
              '(when smtpmail-smtp-server (error "A server was set")))
    (test-received 1)))

(ert-deftest test-who-sends-by-the-users-function-and-fails ()
  (test-with-server (test-script '(:stage "rcpt" :reply "550 5.1.1 No such user"))
    (should (string-search
             "550 5.1.1 No such user"
             (test-who-by-user nil test-who-on
                               `(condition-case err ,test-who-mail
                                  (error (princ (cadr err)))))))))

(ert-deftest test-who-sends-by-the-users-function-after-the-mode ()
  "Then smtpmail's own does what it does."
  (pcase-dolist (`(,before ,after) `((,test-who-on nil) (nil ,test-who-on)))
    (should (string-search
             "Smtpmail itself"
             (test-who-by-user before after
                               `(progn
                                  (rs-smtpmail-mode -1)
                                  (setq send-mail-function #'smtpmail-send-it)
                                  (condition-case err ,test-who-mail
                                    (error (princ (cadr err))))))))))

(provide 'test-who-sends)

;;; test-who-sends.el ends here
